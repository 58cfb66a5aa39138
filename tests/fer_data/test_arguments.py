import argparse
import subprocess
import sys

import pytest

from fer_common.flags import add_flags, command_line
from fer_data import DataError
from fer_data.options import DataOptions


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser, DataOptions)
    return parser.parse_args(argv)


def test_nothing_given_is_the_default():
    assert DataOptions.given(parsed(), None) == DataOptions()


def test_every_option_arrives():
    given = parsed(
        *("--resize", "96", "--resize-method", "lanczos", "--ferplus", "votes.csv", "--labels", "ferplus-soft"),
        *("--skip-bad", "--dedupe", "train", "--classes", "happy, sad", "--fold", "2/5"),
    )
    assert DataOptions.given(given, "fer2013.csv") == DataOptions(
        source="fer2013.csv",
        resize=96,
        resize_method="lanczos",
        ferplus="votes.csv",
        labels="ferplus-soft",
        skip_bad=True,
        dedupe="train",
        classes=("happy", "sad"),
        fold=2,
        folds=5,
    )


def test_the_command_line_of_options_gives_them_again():
    asked = DataOptions(source="fer2013.csv", classes=("happy", "sad"), fold=2, folds=5, skip_bad=True, limit_train=9)
    given = parsed(*command_line(asked))
    assert DataOptions.given(given, given.source) == asked
    assert command_line(DataOptions()) == []


def test_an_old_name_of_labels_is_understood():
    given = DataOptions.given(parsed("--ferplus", "votes.csv", "--labels", "ferplus"), "fer2013.csv")
    assert given.labels == "ferplus-plurality"


def test_a_limit_is_taken_along():
    assert DataOptions.given(parsed("--limit-train", "700"), None) == DataOptions(limit_train=700)


def test_all_wrong_values_are_told_at_once():
    given = parsed("--resize", "4", "--limit-train", "0")
    with pytest.raises(DataError) as raised:
        DataOptions.given(given, None)
    assert "--resize 4: must be at least 8" in str(raised.value)
    assert "--limit-train 0: must be at least 1" in str(raised.value)


@pytest.mark.parametrize(
    ("argv", "says"),
    [(("--fold", "6/5"), "fold 6 of 5: choose 1 to 5"), (("--labels", "ferplus"), "needs ferplus")],
)
def test_options_that_do_not_go_together_are_told(argv, says):
    with pytest.raises(DataError, match=says):
        DataOptions.given(parsed(*argv), None)


@pytest.mark.parametrize("text", ["3", "a/b", "1/2/3", "-1/5"])
def test_a_fold_is_a_number_of_a_number(text, capsys):
    with pytest.raises(SystemExit):
        parsed(f"--fold={text}")
    assert "expected K/N" in capsys.readouterr().err


def test_importing_the_options_imports_nothing_heavy():
    program = (
        "import sys, fer_common.flags, fer_data.cli\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'matplotlib', 'mlflow', 'cv2', 'skimage', 'lmdb', 'kaggle', 'PIL'}\n"
        "print(*heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
