from tests.api.tools import light_settings as light_settings
