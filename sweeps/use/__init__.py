"""Uses a trained net: predictions for photographs, and export."""
