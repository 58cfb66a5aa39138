"""Where sweeps run: Ray on this machine, and the configurations for many."""
