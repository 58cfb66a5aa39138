"""Configurations of nets: frozen, validated, importable without torch. Defaults are those of the net's source.

`size` is the height and width to which faces are resized before the first layer; cost grows with its square. `channels`
is the number of input channels: 1, or 3 with the grey face repeated, as nets for colour images expect.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ModelWrapValidatorHandler, model_validator

from fer_common.frozen import Finite
from fer_models.configs.config_faults import validate_with

Normalisation = Literal[
    "raw", "caffe", "unit", "half", "centred", "lite", "dlib", "mean_image", "standardise", "imagenet"
]
"""How a net normalises grey levels x in 0..255: not at all, x/256, x/255, -1..1, (x-128)/256, (x-127)/128, minus dlib's
mean per channel over 256, minus the mean image of train, each face minus its mean over its deviation, or with
ImageNet's mean and deviation per channel."""

_Dropout = Annotated[float, Field(ge=0, lt=1)]
_Channels = Literal[1, 3]
_Activation = Literal["relu", "leaky_relu"]

_AUXILIARY_SIZE = 299  # from here on, Inception v3's auxiliary head sees the 17x17 map that its layers need


class _NetConfig(Finite):
    source: ClassVar[str]


class LeNetConfig(_NetConfig):
    """Caffe's LeNet: 2,054,577 parameters with 7 classes."""

    source: ClassVar[str] = "Caffe report"
    size: ClassVar[int] = 48
    channels: ClassVar[int] = 1

    name: Literal["lenet"] = "lenet"
    dropout: _Dropout = 0.0
    """Dropout after FC500; the report's variant with dropout has 0.5."""


class AlexNetConfig(_NetConfig):
    """AlexNet: 7,467,527 parameters with 7 classes and `norm="lrn"` at 48 pixels, 44,167,687 at 227."""

    source: ClassVar[str] = "Caffe report"
    channels: ClassVar[int] = 1

    name: Literal["alexnet"] = "alexnet"
    norm: Literal["lrn", "batch"] = "lrn"
    """`lrn` is the report's net with Caffe's fillers; `batch` has batch norm, scaled input and He's initialization."""
    initialization: Literal["auto", "he"] = "auto"
    """`he` gives `lrn` also the scaled input and He's initialization; it then learns from the first epoch on."""
    dropout: _Dropout = 0.5
    """Dropout after FC4096 and after FC1000."""
    normalisation: Literal["mean_image", "standardise"] = "mean_image"
    size: Literal[48, 227] = 48

    @property
    def starts_by_he(self) -> bool:
        """Whether weights are initialised by He et al. (2015) and pixels are scaled, instead of Caffe's fillers."""
        return self.norm == "batch" or self.initialization == "he"


class GoogLeNetConfig(_NetConfig):
    """torchvision's GoogLeNet (with batch norm): 9,951,413 parameters with 7 classes, 5,607,079 without auxiliaries."""

    source: ClassVar[str] = "Caffe report, BVLC GoogLeNet"

    name: Literal["googlenet"] = "googlenet"
    size: int = Field(default=48, ge=32, le=512)
    channels: _Channels = 3
    normalisation: Literal["half", "mean_image", "standardise"] = "half"
    """`half` is what torchvision's ImageNet weights expect."""
    dropout: _Dropout = 0.4
    """Dropout before the last layer."""
    auxiliary_weight: float = Field(default=0.3, ge=0, le=1)
    """Weight of each auxiliary head's loss; 0 omits the heads."""


class ResNet50V1Config(_NetConfig):
    """ResNet-50 with the stride in the first 1x1 of a block: 23,516,103 parameters with 7 classes, grey."""

    source: ClassVar[str] = "Caffe report"

    name: Literal["resnet50_v1"] = "resnet50_v1"
    size: int = Field(default=224, ge=32, le=512)
    channels: _Channels = 1
    normalisation: Literal["centred", "standardise"] = "centred"
    dropout: _Dropout = 0.0
    """Dropout before the last layer."""


class _ResNetConfig(_NetConfig):
    source: ClassVar[str] = "R/Keras report (transfer), torchvision"

    name: str
    size: int = Field(default=224, ge=32, le=512)
    channels: _Channels = 3
    normalisation: Literal["imagenet", "half", "standardise"] = "imagenet"
    dropout: _Dropout = 0.0
    """Dropout before the last layer; the R/Keras report's transfer has 0.5."""


class ResNet18Config(_ResNetConfig):
    """torchvision's ResNet-18: 11,180,103 parameters with 7 classes."""

    name: Literal["resnet18"] = "resnet18"


class ResNet34Config(_ResNetConfig):
    """torchvision's ResNet-34: 21,288,263 parameters with 7 classes."""

    name: Literal["resnet34"] = "resnet34"


class ResNet50Config(_ResNetConfig):
    """torchvision's ResNet-50: 23,522,375 parameters with 7 classes."""

    name: Literal["resnet50"] = "resnet50"


class InceptionV3Config(_NetConfig):
    """torchvision's Inception v3: 24,362,990 parameters with 7 classes, 21,799,911 without the auxiliary head."""

    source: ClassVar[str] = "R/Keras report (transfer), torchvision"

    name: Literal["inception_v3"] = "inception_v3"
    size: int = Field(default=_AUXILIARY_SIZE, ge=75, le=512)
    channels: _Channels = 3
    normalisation: Literal["half", "standardise"] = "half"
    dropout: _Dropout = 0.5
    """Dropout before the last layer."""
    auxiliary_weight: float = Field(default=0.4, ge=0, le=1)
    """Weight of the auxiliary head's loss; 0 omits the head, as is necessary for a size below 299."""

    @model_validator(mode="wrap")
    @classmethod
    def _every_fault(cls, data: Any, handler: ModelWrapValidatorHandler[InceptionV3Config]) -> InceptionV3Config:
        return validate_with(cls, data, handler, _inception_faults)


def _inception_faults(values: dict[str, Any]) -> list[tuple[str, str]]:
    size, weight = values["size"], values["auxiliary_weight"]
    if not isinstance(size, int) or size >= _AUXILIARY_SIZE or weight == 0:
        return []
    return [("auxiliary_weight", f"the auxiliary head needs a size of {_AUXILIARY_SIZE} or more; otherwise use 0")]


class HappySadConfig(_NetConfig):
    """Two convolutions and FC200: with 2 classes 47,634,378 parameters at 244 pixels, 1,848,778 at 48."""

    source: ClassVar[str] = "R/Keras report"
    channels: ClassVar[int] = 1

    name: Literal["happy_sad"] = "happy_sad"
    size: int = Field(default=244, ge=24, le=256)
    """Faces are enlarged bilinearly; the report's Keras uses the nearest pixel."""
    conv_dropout: _Dropout = 0.25
    """Dropout after the pool."""
    dropout: _Dropout = 0.5
    """After FC200."""


class DeepCNNConfig(_NetConfig):
    """Nine convolutions up to 1,024 channels: 20,582,432 parameters with 7 classes."""

    source: ClassVar[str] = "DL-course report"
    size: ClassVar[int] = 48
    channels: ClassVar[int] = 3

    name: Literal["deep_cnn"] = "deep_cnn"


class VGGSmallConfig(_NetConfig):
    """Seven convolutions and FC512 twice: 3,060,071 parameters with 7 classes."""

    source: ClassVar[str] = "VGG report"
    size: ClassVar[int] = 48
    channels: ClassVar[int] = 1

    name: Literal["vgg_small"] = "vgg_small"
    activation: _Activation = "relu"
    """The report proposes `leaky_relu` (slope 0.01) without trying it."""
    normalisation: Literal["raw", "standardise"] = "raw"


class VGGSmallTunedConfig(_NetConfig):
    """vgg_small with batch norm, dropout, max-norm and L2: 3,063,271 parameters with 7 classes."""

    source: ClassVar[str] = "VGG report"
    size: ClassVar[int] = 48
    channels: ClassVar[int] = 1

    name: Literal["vgg_small_tuned"] = "vgg_small_tuned"
    activation: _Activation = "relu"
    normalisation: Literal["raw", "standardise"] = "raw"
    dropouts: tuple[_Dropout, _Dropout, _Dropout, _Dropout, _Dropout] = (0.4, 0.5, 0.6, 0.7, 0.8)
    """Dropout after the first convolution of blocks 1, 2 and 3, after the second of block 3, and after FC6."""
    max_norm: float = Field(default=4.0, gt=0)
    """Maximum norm of a filter or unit, over all its weights, for FC6, FC7 and each convolution except the last of
    blocks 2 and 3. The report gives no axis for Keras's max_norm, which then limits each column of three weights of a
    kernel and has no effect."""
    l2: float = Field(default=1e-6, ge=0)
    """l2 * sum of w^2 is added to the loss, as in Keras, for block 3 and the fully connected layers, with every
    optimizer; the recipe's weight decay is additional."""


class VGG16Config(_NetConfig):
    """VGG-16 (Simonyan and Zisserman 2015), flattened as in Keras: 33,625,927 parameters with 7 classes at 48 px."""

    source: ClassVar[str] = "VGG report; R/Keras report (transfer)"

    name: Literal["vgg16"] = "vgg16"
    size: int = Field(default=48, ge=32, le=256)
    channels: _Channels = 3
    norm: Literal["none", "batch"] = "none"
    """`none` has Keras's initialization and collapses at 48 pixels; `batch` has batch norm and He's initialization."""
    classifier: Literal["fc4096", "average"] = "fc4096"
    """FC4096 twice, or the R/Keras report's transfer: global average pool, dropout, FC."""
    dropout: _Dropout = 0.5
    """Dropout after each FC4096, or after the pool."""
    normalisation: Literal["raw", "imagenet", "standardise"] = "raw"
    """torchvision's IMAGENET1K_V1 weights expect `imagenet`. IMAGENET1K_FEATURES, like Keras's weights, expect grey
    levels minus a mean, which the report does not subtract."""


class VGG16CutConfig(_NetConfig):
    """VGG-16 through block 4's pool, FC2048 twice: 21,293,383 parameters with 7 classes at 48 pixels."""

    source: ClassVar[str] = "VGG report"

    name: Literal["vgg16_cut"] = "vgg16_cut"
    size: int = Field(default=48, ge=32, le=256)
    channels: _Channels = 3
    dropout: _Dropout = 0.8
    """Dropout after the first FC2048 and its batch norm."""
    max_norm: float = Field(default=4.0, gt=0)
    """Maximum norm of the weights of a unit of either FC2048."""
    l2: float = Field(default=1e-6, ge=0)
    """l2 * sum of w^2 is added to the loss, as in Keras, for the fully connected layers, with every optimizer; the
    recipe's weight decay is additional."""
    normalisation: Literal["raw", "imagenet", "standardise"] = "raw"
    """See `VGG16Config`."""


_Width = Annotated[int, Field(ge=8, le=512)]
_Blocks = Annotated[int, Field(ge=1, le=6)]


class CompactResNetConfig(_NetConfig):
    """A residual net for 48-pixel grey faces on small hardware: 1,615,591 parameters with 7 classes.

    With widths (64, 128, 256, 512), two blocks each and a stem of stride 1 it is CIFAR's ResNet-18.
    """

    source: ClassVar[str] = "this project"
    channels: ClassVar[int] = 1

    name: Literal["compact_resnet"] = "compact_resnet"
    size: int = Field(default=48, ge=32, le=128)
    widths: tuple[_Width, _Width, _Width, _Width] = (32, 64, 128, 256)
    """Channels of the four groups of blocks, each at half the resolution of the one before."""
    blocks: tuple[_Blocks, _Blocks, _Blocks, _Blocks] = (2, 2, 2, 1)
    stem_stride: Literal[1, 2] = 2
    dropout: _Dropout = 0.0
    """Dropout before the last layer."""
    normalisation: Literal["standardise", "half"] = "standardise"


class EfficientNetLite0Config(_NetConfig):
    """EfficientNet-Lite0: 3,379,975 parameters with 7 classes; needs the optional package efficientnet-lite-pytorch."""

    source: ClassVar[str] = "pretrained backbone for transfer"
    channels: ClassVar[int] = 3

    name: Literal["efficientnet_lite0"] = "efficientnet_lite0"
    size: int = Field(default=224, ge=64, le=320)
    dropout: _Dropout = 0.2
    """Dropout before the last layer."""


class FaceResNetConfig(_NetConfig):
    """dlib's ResNet for recognising people, under a head for expressions: 5,591,047 parameters with 7 classes."""

    source: ClassVar[str] = "dlib (King 2017), pretrained backbone for transfer"
    channels: ClassVar[int] = 3

    name: Literal["face_resnet"] = "face_resnet"
    size: int = Field(default=150, ge=104, le=256)
    """Its weights were trained at 150."""
    dropout: _Dropout = 0.2
    """Before the last layer."""


Single = (
    LeNetConfig
    | AlexNetConfig
    | GoogLeNetConfig
    | ResNet50V1Config
    | ResNet18Config
    | ResNet34Config
    | ResNet50Config
    | InceptionV3Config
    | HappySadConfig
    | DeepCNNConfig
    | VGGSmallConfig
    | VGGSmallTunedConfig
    | VGG16Config
    | VGG16CutConfig
    | CompactResNetConfig
    | EfficientNetLite0Config
    | FaceResNetConfig
)
"""Every net but those that are made of others."""


class JointConfig(_NetConfig):
    """Several nets in one, trained together."""

    source: ClassVar[str] = "VGG report, its ensembles"
    channels: ClassVar[int] = 1

    name: Literal["joint"] = "joint"
    members: tuple[Annotated[Single, Field(discriminator="name")], ...] = Field(min_length=2)
    at: Literal["output", "middle"] = "output"
    """`output`: the mean of the members' logits. `middle`: the maps behind the first half of each member's stages,
    pooled to 3x3 and side by side, under a new classifier."""
    joined_from: tuple[str, ...] = ()
    """The runs whose trained nets its members were at first."""

    @property
    def size(self) -> int:
        """That of the first member."""
        return self.members[0].size


NetConfig = Annotated[Single | JointConfig, Field(discriminator="name")]

NET_CONFIGS: dict[str, type[_NetConfig]] = {config.model_fields["name"].default: config for config in get_args(Single)}
"""Net name -> its configuration; of single nets."""

NET_NAMES = tuple(NET_CONFIGS)
