"""A tenth of the attack on every public name, checkpoints and files; `python tests/attack.py` makes all of it."""

import attack


def test_bad_input_is_refused_in_one_sentence_or_gives_a_documented_result(capsys):
    found = attack.run(every=10)
    assert set(found) == {"bad inputs", "checkpoints", "image and annotation files"}
    assert all(kinds.keys() <= {"refused", "result"} for kinds in found.values()), capsys.readouterr().out
    assert found["bad inputs"].total() > 400
    assert found["checkpoints"].total() == 100


def test_failures_are_seen():
    def fail(error):
        raise error

    answers = {
        "raw error": [lambda: fail(AttributeError("x")), lambda: fail(TypeError("'<' not supported between a and b"))],
        "NaN": [lambda: attack.torch.tensor(float("nan"))],
        "refused": [lambda: fail(ValueError("size must be at least 1, got 0"))],
        "result": [lambda: 3],
    }
    for kind, its in answers.items():
        assert {attack.answer(attack.Attack("x", call)).kind for call in its} == {kind}
