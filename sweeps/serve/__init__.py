"""The web application: all sweeps, one sweep while it runs, and a trained net to try on a face."""
