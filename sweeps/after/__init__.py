"""Works on trials that have ended: pictures, reports, test, ensembles, registration, cleanup."""
