"""The one exception of this package."""

from fer_common.errors import UserError


class TrackingError(UserError):
    """Something kept on disk or sent to MLflow is not as it must be; the message is complete in itself."""
