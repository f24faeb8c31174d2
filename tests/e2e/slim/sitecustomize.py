"""Python imports this at its start: packages that slim installations lack cannot be imported."""

import sys

LACKING = ("open3d", "sklearn", "transformers")
sys.modules.update(dict.fromkeys(LACKING))
