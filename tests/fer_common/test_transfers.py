import torch

from fer_common.transfers import copy_together


def test_copies_are_equal_contiguous_and_apart_from_what_they_are_of() -> None:
    given = [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.tensor(7),
        torch.ones(2, 2, requires_grad=True),
        torch.arange(4, dtype=torch.float16),
        torch.zeros(0),
    ]
    copies = copy_together(given, "cpu")
    assert [(one.dtype, one.shape) for one in copies] == [(one.dtype, one.shape) for one in given]
    assert all(torch.equal(one, of) for one, of in zip(copies, given, strict=True))
    assert all(one.is_contiguous() and not one.requires_grad for one in copies)
    given[1].add_(1)
    assert copies[1] == 7


def test_tensors_of_one_type_lie_in_one_block() -> None:
    a, whole, b = copy_together([torch.ones(2), torch.ones(3, dtype=torch.int64), torch.ones(4)], "cpu")
    assert a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() != whole.untyped_storage().data_ptr()
    assert copy_together([], "cpu") == []
