"""Bad command lines of `snapfit explain`; test_bad_input.py runs them."""

from bad_folders import _copied, flipped
from bad_tables import GOOD, case

EXPLANATIONS = [
    case("explain with a missing bundle", "explain nowhere --text a", "nowhere is missing"),
    case("explain nothing", "explain {bundle}", "snapfit explain BUNDLE --text TEXT"),
    case("explain a table and a text", "explain {bundle} t.csv --text a", "both", files={"t.csv": GOOD}),
    case("explain an unreadable table", "explain {bundle} t.csv", "t.csv"),
    case("explain without the column", "explain {bundle} t.csv", "--text-column", files={"t.csv": "review\na\n"}),
    case("explain one text with a bundle of pairs", "explain {pairs} --text a", "0 tabs"),
    case("explain an unknown label", "explain {bundle} --text a --label fodo", "'fodo'", "did you mean 'food'"),
    case("explain by an unknown method", "explain {bundle} --text a --method oclusion", "did you mean occlusion"),
    case("explain no words", "explain {bundle} --text a --top 0", "--top 0", "at least 1"),
    case("explain no rows", "explain {bundle} t.csv --rows 0", "--rows 0", files={"t.csv": GOOD}),
    case("explain into a missing folder", "explain {bundle} --text a --out a/b.jsonl", "no folder a"),
    case("explain into a page in a missing folder", "explain {bundle} --text a --html a/b.html", "no folder a"),
    case("explain into a folder", "explain {bundle} --text a --html f", "--html f is a folder", files={"f": None}),
    case("explain into one file twice", "explain {bundle} --text a --html a --out ./a", "--html and --out"),
    case("explain into the input", "explain {bundle} t.csv --html t.csv", "--html t.csv", files={"t.csv": GOOD}),
    case(
        "explain into the bundle",
        "explain b --text a --out b/a.jsonl",
        "inside",
        prepare=lambda folder: _copied(folder, "single/bundle", "b"),
    ),
    case(
        "explain with weights changed by one bit",
        "explain b --text a",
        "model.safetensors",
        prepare=lambda folder: flipped(_copied(folder, "single/bundle", "b")),
    ),
]
