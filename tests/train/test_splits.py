"""Published splits, counted on made-up indices."""

from dataclasses import replace

import numpy as np
import pytest

from realtime.errors import UsageError
from realtime.skeleton import KINECT_V2_25
from train.data import splits
from train.data.prepared import Prepared
from train.data.splits import split


def prepared(data, subject=0, camera=0, setup=0, name=None, lists=None):
    """One-frame clips with these numbers, broadcast against each other."""
    subject, camera, setup = (np.atleast_1d(a).astype(np.int16) for a in np.broadcast_arrays(subject, camera, setup))
    count = np.arange(len(subject))
    names = [f"clip_{i}" for i in count] if name is None else name
    return Prepared(
        data, KINECT_V2_25, ("A001",), 30.0, np.ones((len(count), 2, 25, 3), np.float32), count, np.ones_like(count),
        0 * count, subject, camera, setup, np.array(names), lists or {},
    )  # fmt: skip


def test_ntu60_trains_on_its_20_subjects_of_40():
    train, test = split(prepared("ntu60", subject=np.arange(1, 41)), "xsub")
    assert train.sum() == 20 and (train ^ test).all()
    assert (np.flatnonzero(test) + 1).tolist() == [
        *(3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40)
    ]


def test_ntu60_across_views_tests_on_camera_1():
    train, test = split(prepared("ntu60", camera=[1, 2, 3]), "xview")
    assert train.tolist() == [False, True, True] and test.tolist() == [True, False, False]


def test_ntu120_trains_on_53_subjects_of_106():
    """The published numbers: half of 106 subjects; the first set's 20 are among them."""
    train, test = split(prepared("ntu120", subject=np.arange(1, 107)), "xsub")
    assert train.sum() == 53 and (train ^ test).all()
    assert set(splits.NTU60_SUBJECTS) < set(splits.NTU120_SUBJECTS)
    assert (np.flatnonzero(train) + 1)[-9:].tolist() == [91, 92, 93, 94, 95, 97, 98, 100, 103]


def test_ntu120_across_setups_trains_on_even_ones():
    train, test = split(prepared("ntu120", setup=np.arange(1, 33)), "xset")
    assert (np.flatnonzero(train) + 1).tolist() == list(range(2, 33, 2)) and (train ^ test).all()


def test_nw_ucla_tests_on_view_3():
    train, test = split(prepared("nw_ucla", camera=[1, 2, 3]), "xview")
    assert train.tolist() == [True, True, False] and test.tolist() == [False, False, True]


@pytest.mark.parametrize("data", ["utd_mhad", "utkinect", "msr_action3d", "msrc12"])
def test_other_sets_train_on_odd_subjects(data):
    train, test = split(prepared(data, subject=[1, 2, 3, 8]), "xsub")
    assert train.tolist() == [True, False, True, False] and (train ^ test).all()


def test_each_pair_of_sbu_is_tested_in_one_fold():
    pairs = sorted(pair for fold in splits.SBU_FOLDS for pair in fold)
    assert len(pairs) == len(set(pairs)) == 21
    tests = [split(prepared("sbu", subject=pairs), name)[1] for name in splits.names("sbu")]
    assert (np.sum(tests, axis=0) == 1).all() and len(tests) == 5


def test_pku_mmd_follows_its_own_list():
    lists = {"xsub": {"train": ["0002-L", "0002-M"], "test": ["0003-L"]}}
    names = ["0002-L_000", "0002-M_011", "0003-L_000", "0004-L_000"]
    found = prepared("pku_mmd1", camera=[1, 2, 1, 1], name=names, lists=lists)
    train, test = split(found, "xsub")
    assert train.tolist() == [True, True, False, False]
    assert test.tolist() == [False, False, True, False]  # 0004-L is in no list


@pytest.mark.parametrize(
    ("data", "name", "file"),
    [
        ("pku_mmd1", "xsub", "cross-subject.txt"),
        ("pku_mmd1", "xview", "cross-view.txt"),
        ("pku_mmd2", "xsub", "cross_subject_v2.txt"),
        ("pku_mmd2", "xview", "cross_view_v2.txt"),
    ],
)
def test_pku_mmd_without_its_list_names_the_file(data, name, file):
    with pytest.raises(UsageError, match=f"published list {file}.*--split-file {file}"):
        split(prepared(data, camera=[1, 2]), name)


def test_a_split_that_a_set_has_not_is_refused_with_those_it_has():
    with pytest.raises(UsageError, match="no split 'xset'; it has xsub, xview"):
        split(prepared("ntu60", subject=[1, 3]), "xset")
    with pytest.raises(UsageError, match="it has fold1, fold2, fold3, fold4, fold5"):
        split(prepared("sbu", subject=[102]), "xsub")


def test_a_split_with_an_empty_side_is_refused():
    odd = prepared("utd_mhad", subject=[1, 3])
    with pytest.raises(UsageError, match=r"2 clips to train and 0 to test.*train\.prepare utd_mhad"):
        split(odd, "xsub")
    assert split(replace(odd, subject=np.array([1, 2])), "xsub")[1].tolist() == [False, True]
