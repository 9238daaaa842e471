"""Who merges: ksmd of this kernel, our own scanner, or a model. Only what is in here writes knobs."""
