"""The one exception of this package."""


class TrackingError(Exception):
    """Something kept on disk or sent to MLflow is not as it must be; the message is complete in itself."""
