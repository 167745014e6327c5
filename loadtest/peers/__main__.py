"""`python -m loadtest.peers`."""

import sys

from loadtest.peers.run import main

sys.exit(main())
