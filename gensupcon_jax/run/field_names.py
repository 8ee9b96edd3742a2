"""What to say where a field of the config is misspelled."""

from gensupcon_jax.command_line import did_you_mean, nearest_fields
from gensupcon_jax.configs.fields import FIELDS


def hint(name: str) -> str:
    """What to say after an unknown field's name: the fields that it may mean, or where to look."""
    members = [field for field in FIELDS if field.startswith(f"{name}.")]
    if members:
        return f"; it is a group of fields: {', '.join(members)}"
    close = nearest_fields(name, FIELDS)
    return f"; {did_you_mean(close)}" if close else "; see configs/fields.py for all fields"
