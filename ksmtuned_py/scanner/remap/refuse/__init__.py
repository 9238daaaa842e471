"""Floor 3: refuses guests and mappings of which it is not known that remapping leaves them alone."""
