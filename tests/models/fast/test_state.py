"""Every change of a network is noticed, and nothing is noticed where nothing changed."""

import copy
from collections import OrderedDict, UserDict

import pytest
import torch
from torch import nn

from _models import TinyBackbone
from fewshotseg.models.backbones import make_backbone
from fewshotseg.models.fast.state import State, digest


class Network(TinyBackbone):
    """With attributes of all kinds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.share, self.names, self.table = 0.5, ["a"], torch.ones(3)
        self.dropout = nn.Dropout(0.1)
        self.settings = {"gain": [1.0, {2}]}
        self.register_buffer("mask", torch.tensor([True]))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.register_parameter("nothing", None)


def replace_child(network):
    network.last = copy.deepcopy(network.last)


def replace_grandchild(network):
    network.shallow[2] = nn.Softplus()


def add_child(network):
    network.more = nn.ReLU()


def remove_child(network):
    del network.shallow[2]


def change_attribute(network):
    network.last.padding = (2, 2)


def change_rate(network):
    network.dropout.p = 0.2


def change_epsilon(network):
    network.deep[1].eps = 1.0


def add_attribute(network):
    network.more = 1


def replace_tensor_attribute(network):
    network.table = torch.zeros(3)


def write_into_a_list(network):
    network.names.append("b")


def write_into_a_set_deep_inside(network):
    network.settings["gain"][1].add(3)


@torch.no_grad()
def write_into_a_tensor_attribute(network):
    network.table.mul_(2)


def change_class(network):
    network.last.__class__ = type("Derived", (nn.Conv2d,), {})


def put_a_forward_on_it(network):
    network.last.forward = lambda maps: maps


def add_hook(network):
    network.last.register_forward_hook(lambda *_: None)


def add_pre_hook(network):
    network.shallow[0].register_forward_pre_hook(lambda *_: None)


def add_backward_hook(network):
    network.register_full_backward_hook(lambda *_: None)


def add_hook_with_keywords(network):
    network.last.register_forward_hook(lambda *_: None, with_kwargs=True)


def add_hook_to_another_dict(network):
    network.last._forward_hooks = OrderedDict()
    network.last.register_forward_hook(lambda *_: None)


def take_a_parameter_away_from_another_dict(network):
    network.last._parameters = dict(network.last._parameters)
    network.last.bias = None


def replace_parameter(network):
    network.last.weight = nn.Parameter(network.last.weight.detach().clone())


def take_a_parameter_away(network):
    network.last.bias = None


def give_a_parameter(network):
    network.nothing = nn.Parameter(torch.ones(1))


def replace_buffer(network):
    network.deep[1].running_mean = network.deep[1].running_mean.clone()


@torch.no_grad()
def write_one_value(network):
    network.last.weight[0, 0, 0, 0] += 1


@torch.no_grad()
def write_a_buffer(network):
    network.mask.logical_not_()


@torch.no_grad()
def write_an_unsaved_buffer(network):
    network.unsaved[0] = 5


def write_all_through_data(network):
    network.last.weight.data.mul_(2)


def replace_data(network):
    network.last.bias.data = network.last.bias.data.clone()


def load(network):
    network.load_state_dict(copy.deepcopy(network.state_dict()))


def train(network):
    network.train()


def train_one(network):
    network.deep[1].train()


def change_dtype(network):
    network.double()


def reparametrise(network):
    nn.utils.parametrizations.weight_norm(network.last)


CHANGES = [value for value in list(globals().values()) if getattr(value, "__module__", "") == __name__]
CHANGES = [value for value in CHANGES if not isinstance(value, type)]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(change):
    network = Network().eval()
    state = State(network)
    assert state.holds()
    change(network)
    assert not state.holds()
    assert State(network).holds()


def test_a_hook_for_all_modules_is_noticed():
    state = State(Network())
    handle = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: None)
    try:
        assert not state.holds()
    finally:
        handle.remove()
    assert state.holds()


@pytest.mark.parametrize("make", [Network, lambda: make_backbone("mobilenet_v2"), lambda: make_backbone("tiny")])
def test_nothing_is_noticed_where_nothing_changed(make):
    network = make().eval()
    state = State(network)
    with torch.no_grad():
        network.high(network.mid(torch.rand(1, 3, 64, 64))[0])
    network.state_dict()
    copy.deepcopy(network)
    handle = network.register_forward_hook(lambda *_: None)
    handle.remove()
    network.train().eval()
    assert state.holds()


@pytest.mark.parametrize("network", [nn.ReLU(), nn.Linear(2, 2, device="meta"), nn.BatchNorm2d(0)])
def test_networks_without_values_to_look_at(network):
    assert State(network).holds()


def test_weights_that_are_no_plain_tensors():
    network = nn.Linear(2, 2)
    network.register_buffer("sparse", torch.eye(3).to_sparse())
    network.register_buffer("nan", torch.tensor([torch.nan]))
    state = State(network)
    network.bias.data.add_(1)
    assert not state.holds()
    assert digest(network) != digest(network)


def test_children_in_a_mapping_that_is_no_dict():  # as scripted modules have
    network = nn.Sequential(nn.Linear(2, 2))
    network.__dict__["_modules"] = UserDict(network._modules)
    state = State(network)
    assert state.holds()
    network._modules["0"] = nn.Linear(2, 2)
    assert not state.holds()


# Digests, which tell networks apart


def test_networks_with_hooks_have_no_digest():
    network = Network()
    assert digest(network) is not None
    handle = network.last.register_forward_hook(lambda *_: None)
    assert digest(network) is None
    handle.remove()
    assert digest(network) is not None


def test_tensors_of_uncommon_kinds_are_read():
    network = nn.Linear(2, 2)
    network.register_buffer("small", torch.ones(4).to(torch.float8_e4m3fn))
    network.register_buffer("turned", torch.ones(3, dtype=torch.complex64).conj())
    assert State(network).holds()
    before = digest(network)
    network.turned = torch.full((3,), 2, dtype=torch.complex64).conj()
    assert digest(network) != before


def test_networks_that_are_alike_have_one_digest():
    for name in ("mobilenet_v2", "efficientnet_lite0", "tiny", "resnet50"):
        network = make_backbone(name)
        assert digest(network) == digest(network) == digest(copy.deepcopy(network))


UNSEEN = (replace_child, replace_data, load, write_into_a_tensor_attribute)


@pytest.mark.parametrize("change", [change for change in CHANGES if change not in UNSEEN])
def test_a_change_makes_another_digest(change):
    network = Network().eval()
    del network.table
    before = digest(network)
    if change in (replace_parameter, replace_buffer):  # by a copy
        change(network)
        assert digest(network) == before
        return
    change(network)
    assert digest(network) != before


def test_two_classes_of_one_name_are_two():
    def define(factor):
        class Backbone(TinyBackbone):
            def high(self, deepest):
                return factor * super().high(deepest)

        return Backbone

    network, other = TinyBackbone(), TinyBackbone()
    other.load_state_dict(network.state_dict())
    assert digest(network) == digest(other)
    network.__class__, other.__class__ = define(1), define(2)
    assert digest(network) != digest(other)
