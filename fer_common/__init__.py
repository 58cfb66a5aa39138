"""What all packages need and no library has: errors in one line, names nearly right, whole files, declared options."""
