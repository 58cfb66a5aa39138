"""One web application: all sweeps, one of them alive, and a trained net to try on a face."""
