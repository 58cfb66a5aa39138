"""From options and a space to a plan: what to try, with which resources."""
