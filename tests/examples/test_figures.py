"""The paper's figures: counted by hand, drawn for what was trained."""

import json

import numpy as np
import pytest

import figures
import study
from _folders import make_folder
from fewshotseg import build_scnet
from fewshotseg.data import EpisodeDataset, SyntheticSource, pascal5i
from fewshotseg.models.backbones.tiny import tiny


def test_fig2_counts_novel_objects_in_training_images(tmp_path):
    arguments = ["fig2", "synthetic", "--images", "60", "--size", "33", "--folds", "2", "0", "--out", str(tmp_path)]
    figures.main(arguments)
    shares = json.loads((tmp_path / "fig2.json").read_text())
    held = [set(areas) for areas in SyntheticSource(60, num_classes=20, size=32).class_areas]
    assert list(shares) == ["Fold-2", "Fold-0"]
    for fold in (0, 2):
        novel = set(pascal5i(fold).novel)
        training = [classes for classes in held if classes - novel]
        expected = sum(len(classes & novel) for classes in training) / sum(map(len, training))
        assert shares[f"Fold-{fold}"] == expected
    heights = [bar.get_height() for bar in figures.share_bars(shares).axes[0].patches]
    assert heights == pytest.approx([100 * share for share in shares.values()])
    assert (tmp_path / "fig2.png").stat().st_size > 1000


def test_fig2_counts_what_folders_leave_out_of_training(tmp_path):
    folder = make_folder(tmp_path / "own", {"a": [1, 2], "b": [2, 3], "c": [1], "d": [4, 5]})
    other = make_folder(tmp_path / "other", {"e": [1, 2, 3]})
    data = ["--data", str(folder), str(other), "--folds", "0"]
    figures.main(["fig2", "folders", *data, "--out", str(tmp_path / "out")])
    # Novel is class 1, of a quarter of five classes; it stands in two of the four training images.
    assert json.loads((tmp_path / "out" / "fig2.json").read_text()) == {"Fold-0": 2 / (7 + 2)}


def trained(folder, row, fold):
    data = ["synthetic", "--images", "300", "--size", "33", "--episodes", "20", "--pretrain", "1", "--iterations", "1"]
    where = ["--out", str(folder / "results"), "--runs", str(folder / "runs"), "--device", "cpu", "--looks", "1"]
    study.main([*data, *where, "--rows", row, "--folds", str(fold), "--seeds", "0"])
    return next((folder / "runs").glob(f"{row}-fold{fold}-*/last.pth"))


def test_fig5_draws_what_both_models_make_of_the_fold_they_were_trained_on(tmp_path, capsys):
    pair = [str(trained(tmp_path, row, 1)) for row in ("pfenet", "scnet")]
    figures.main(["fig5", *pair, "--out", str(tmp_path)])
    assert capsys.readouterr().out.endswith("fig5.png\n")
    assert (tmp_path / "fig5.png").stat().st_size > 10_000
    drawn = figures.checkpoint_answers(pair, None)
    names = SyntheticSource(1, num_classes=20).class_names
    titles = [axis.get_title() for axis in drawn.axes if axis.get_title()]
    assert titles
    assert set(titles) <= {names[class_id] for class_id in pascal5i(1).novel}
    other = str(trained(tmp_path, "scnet", 2))
    with pytest.raises(SystemExit):
        figures.main(["fig5", pair[0], other, "--out", str(tmp_path)])
    assert "must be of one benchmark and fold, got synthetic, fold 1, and synthetic" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        figures.main(["fig5", "a.pth", "b.pth", "--out", str(tmp_path)])
    assert "a.pth" in capsys.readouterr().err


def test_pictures_of_episodes_with_different_queries():
    source = SyntheticSource(40, num_classes=6, size=48)
    episodes = EpisodeDataset(source, [1, 2], shots=2, length=200)
    model = build_scnet(tiny(), hidden_channels=8, bins=(1.0,)).eval()
    axes = np.array(figures.draw_episodes({"own": model}, episodes, size=49, columns=4).axes).reshape(4, 4)
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["support", "query", "truth", "own"]
    pictures = [[axis.images[0].get_array() for axis in row] for row in axes]
    assert len({query.tobytes() for query in pictures[1]}) == 4
    for query, truth in zip(pictures[1], pictures[2], strict=True):
        shown = (truth == query).all(axis=2)
        assert 0 < shown.mean() < 1
