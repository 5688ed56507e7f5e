"""The shape vocabulary: one name per axis, used in every tensor annotation.

`batch` prompts in a forward pass, `pos` token positions, `d_model` residual width, `d_vocab`
vocabulary, `layer` residual sites in order, `row` stored or fitted examples, `feature` columns.
"""

from jaxtyping import Bool, Float, Int
from numpy import ndarray
from torch import Tensor

Tokens = Int[Tensor, "batch pos"]
Mask = Int[Tensor, "batch pos"]
Logits = Float[Tensor, "batch pos d_vocab"]
Residual = Float[Tensor, "batch pos d_model"]

Rows = Float[ndarray, "row feature"]
Labels = Bool[ndarray, "row"]
Scores = Float[ndarray, "row"]
