"""Every kind of finding: what it is called, what it does to a result, what to do about it, and how it weighs.

docs/check.md explains each of them; a test holds that it does.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What all findings of a kind have in common.

    title: in a few words. effect: what it does to the result. fix: a command or a setting.
    weight: how much a share of rows with it costs, beside other kinds of the same level; for the order of findings.
    """

    title: str
    effect: str
    fix: str
    weight: float = 1.0


FIX_ROWS = "correct these rows, or leave them out: --fix DIR"

KINDS: dict[str, Kind] = {
    # ---------------------------------------------------------------- rows that training refuses
    "unreadable_row": Kind("rows that cannot be read", "training refuses the file", FIX_ROWS, 9),
    "missing_text": Kind("rows without a text", "training refuses the table", FIX_ROWS, 9),
    "missing_label": Kind("rows without a label", "training refuses the table", FIX_ROWS, 9),
    "bad_label": Kind("labels of another kind", "training refuses the table", FIX_ROWS, 9),
    "label_not_in_train": Kind(
        "labels that the training table lacks",
        "training refuses the table: no model can answer with them",
        "add rows of these labels to the training table, or take them out here",
        9,
    ),
    "one_label": Kind(
        "one label only",
        "training refuses the table: there is nothing to tell apart",
        "check that the label column is the right one (--label NAME), or add rows of another label",
        9,
    ),
    "no_labels": Kind(
        "a table without labels",
        "nothing can be measured on it: train refuses it as --valid or --test",
        "name its label column, or predict on it instead: snapfit predict BUNDLE TABLE",
        3,
    ),
    # ---------------------------------------------------------------- the same text again
    "leak": Kind(
        "texts of one split in another",
        "figures on it are too good: the model has seen these texts",
        "take them out of the training table: --fix DIR",
        8,
    ),
    "near_leak": Kind(
        "near-duplicates across splits",
        "figures on it may be too good: the model has seen texts that differ in a few characters",
        "look at the pairs; take them out of the training table: --fix DIR --drop near_leak",
        4,
    ),
    "conflicting_labels": Kind(
        "the same text with different labels",
        "no model can learn both: they cap what can be reached, on test tables too",
        "correct the labels, or leave all of them out: --fix DIR --drop conflicting_labels",
        6,
    ),
    "suspected_label": Kind(
        "labels that a model disagrees with",
        "wrong labels teach what is wrong, and make right answers count as errors",
        "look at them, the likeliest first, and correct those that are wrong",
        5,
    ),
    "duplicate_text": Kind(
        "the same text again",
        "repeated rows count more than once, in training and in figures",
        "leave out repeated rows of the training table: --fix DIR",
        2,
    ),
    "near_duplicate": Kind(
        "near-duplicates",
        "rows that differ in a few characters count nearly twice",
        "look at the pairs; where one has another label than the other, one of them may be wrong",
        1,
    ),
    # ---------------------------------------------------------------- labels
    "small_class": Kind(
        "labels with few rows",
        "too little to learn them from, or to have them in a validation split too",
        "add rows, or join them with another label; a sampling of all labels alike: --set train.sampling=balanced",
        2,
    ),
    "label_missing": Kind(
        "labels of the training table that are not in the split",
        "nothing is measured of them",
        "add rows of these labels to the split",
        1,
    ),
    "similar_labels": Kind(
        "labels that are written almost alike",
        "each spelling is a label of its own, and rows of one teach nothing about the other",
        "write them in one way",
        5,
    ),
    "odd_label": Kind(
        "labels that look like missing values",
        "they are labels like any other",
        "check whether they mean that there is no label",
        2,
    ),
    "imbalance": Kind(
        "one label on most rows",
        "accuracy says little: whoever always answers with it has it right that often",
        "choose by another metric: --set train.metric=macro_f1",
        1,
    ),
    "label_shift": Kind(
        "labels in other shares than in training",
        "figures on it are of another mix of labels than the model has learnt",
        "draw the splits from one table, or check where this one comes from",
        2,
    ),
    "far_number": Kind(
        "numbers far from all others",
        "squared errors of a few rows outweigh those of all others",
        "check these rows for slips, such as a missing decimal point",
        2,
    ),
    "constant_target": Kind(
        "the same number in every row", "there is nothing to learn", "check that --label names the right column", 9
    ),
    "sorted_rows": Kind(
        "rows sorted by label",
        "harmless while all rows are shuffled; of tables larger than a million rows, blocks are shuffled",
        "shuffle the rows of the file",
        1,
    ),
    # ---------------------------------------------------------------- texts
    "empty_text": Kind("empty texts", "a label without a text teaches the wrong thing", FIX_ROWS, 3),
    "half_pair": Kind("pairs with one empty text", "there is nothing to compare", "fill in or remove these rows", 2),
    "control_characters": Kind(
        "control characters",
        "tokenizers drop them or make them unknown; they come from broken exports",
        "remove them where the texts come from",
        1,
    ),
    "invisible_characters": Kind(
        "invisible characters",
        "words that look the same become other tokens",
        "remove them where the texts come from",
        1,
    ),
    "mojibake": Kind(
        "texts read in the wrong encoding",
        "broken characters become unknown or meaningless tokens",
        "read or export the texts again in their real encoding; a package for the rest is ftfy",
        3,
    ),
    "html": Kind(
        "remains of HTML",
        "tags and entities take tokens and say nothing",
        "strip tags and unescape entities before training, and do the same before predicting",
        1,
    ),
    "no_words": Kind(
        "texts without a letter or digit", "there is hardly anything to learn from", "check these rows", 1
    ),
    "extreme_length": Kind(
        "texts far longer than the others",
        "often several rows that a missing quote or line end made one",
        "check these rows",
        1,
    ),
    "script_mix": Kind(
        "texts in another script than most",
        "an encoder of one language reads the others badly",
        "check these rows, or take a multilingual encoder",
        1,
    ),
    "script_shift": Kind(
        "scripts in other shares than in training",
        "figures on it are of other languages than the model has learnt",
        "draw the splits from one table",
        2,
    ),
    # ---------------------------------------------------------------- the encoder and the texts
    "unknown_tokens": Kind(
        "words that the encoder does not know",
        "they all become the same unknown token, whatever they say",
        "take an encoder of the texts' language: --encoder NAME",
        6,
    ),
    "many_tokens": Kind(
        "texts that the encoder spells out",
        "many tokens a character: the encoder has hardly met this script, and rows take long",
        "take an encoder of the texts' language: --encoder NAME",
        4,
    ),
    "truncated": Kind(
        "texts that are cut",
        "what lies behind the limit is not read",
        "raise the limit where the encoder allows it: --set length.max_tokens=N; or read other parts of longer texts: "
        "--set length.policy=head+tail, or windows",
        1,
    ),
    # ---------------------------------------------------------------- the answer in the text
    "telling_word": Kind(
        "words that give a label away",
        "the model learns the word and nothing else; figures are too good where new texts lack it",
        "check whether texts to come will have it; take it out of the texts otherwise",
        4,
    ),
    "label_in_text": Kind(
        "a label's own name in its texts",
        "the model learns the name and nothing else; figures are too good where new texts lack it",
        "check whether texts to come will have it; take it out of the texts otherwise",
        4,
    ),
    "id_in_text": Kind(
        "a number of its own in each text",
        "it can be learnt by heart, and tells the label where rows were numbered label by label",
        "take it out of the texts",
        3,
    ),
    "same_beginning": Kind(
        "many texts that begin alike",
        "it takes tokens and says nothing",
        "take it out of the texts",
        1,
    ),
}
