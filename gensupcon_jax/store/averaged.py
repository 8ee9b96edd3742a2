"""The fields of a train state that hold a network and its moving average, and the network that the average is."""

from typing import Any

AVERAGED_FIELDS = ("params", "batch_stats", "ema_params", "ema_batch_stats")


def averaged_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """`params` and `batch_stats` of the average, from the AVERAGED_FIELDS.

    What has no average stays: the classifier beside a momentum encoder.
    """
    return {
        "params": {**fields["params"], **fields["ema_params"]},
        "batch_stats": {**fields["batch_stats"], **fields["ema_batch_stats"]},
    }
