"""The built-in spaces, by the name the command line takes. A new one is a file here and a line below."""

from sweeps.space import Space
from sweeps.spaces import alexnet_space, lenet_space

SPACES: dict[str, Space] = {
    "alexnet_space": alexnet_space.SPACE,
    "lenet_space": lenet_space.SPACE,
}
