from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from fer_common.faults import rule


class Given(BaseModel, extra="forbid"):
    at_least: Annotated[int, Field(ge=1)] = 1
    above: Annotated[float, Field(gt=0)] = 1.0
    at_most: Annotated[int, Field(le=9)] = 1
    below: Annotated[float, Field(lt=1)] = 0.0
    one_of: Literal["a", "b"] = "a"
    number: int = 0
    own: int = 0

    @field_validator("own")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("expected an even number")
        return value


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"at_least": 0}, "must be at least 1"),
        ({"above": 0}, "must be above 0"),
        ({"at_most": 10}, "must be at most 9"),
        ({"below": 1}, "must be below 1"),
        ({"one_of": "c"}, "must be 'a' or 'b'"),
        ({"number": "x"}, "must be a valid integer, unable to parse string as an integer"),
        ({"own": 3}, "expected an even number"),
        ({"another": 3}, "extra inputs are not permitted"),
    ],
)
def test_a_broken_rule_is_said_in_plain_words(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Given.model_validate(given)
    assert [rule(fault) for fault in raised.value.errors()] == [says]
