"""Methods of search, compared on whole sweeps that are simulated on FER-Curves."""
