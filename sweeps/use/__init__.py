"""A trained net in use: predictions for photographs, export, and the web application."""
