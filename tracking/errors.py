"""The exception of this package."""

from fer_common.errors import UserError


class TrackingError(UserError):
    """A fault of records on disk or in MLflow. The message has everything that the user needs."""
