from tests.api.tools import fast_passwords as fast_passwords
