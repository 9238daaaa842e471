"""The full screen in a terminal that `top` and `demo` share."""
