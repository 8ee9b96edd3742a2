"""ConfigDict as it is used here: its fields are known when the program runs, and `configs/fields.py` declares them."""

from ml_collections import config_dict as config_dict
from ml_collections import config_flags as config_flags
from ml_collections.config_dict import ConfigDict as ConfigDict
