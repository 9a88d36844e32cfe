"""A mini-batch's gradients: in micro-batches as at once, with the same dropout in both passes, and only into what trains."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from imagebind_cli.encoder import EncoderConfig
from imagebind_cli.errors import UserError
from imagebind_cli.training import optimizer
from imagebind_cli.training.compute import precision_lines
from imagebind_cli.training.data import Batch
from imagebind_cli.training.loss import PairLoss
from imagebind_cli.training.recipe import EncoderRecipe, OptimizerRecipe, PairRecipe, RunRecipe
from imagebind_cli.training.start import encoder_with, fresh_weights
from imagebind_cli.training.step import compute_gradients
from imagebind_cli.training.towers import make_tower, set_trainable
from imagebind_cli.transformer import TrunkConfig

CPU = torch.device("cpu")
GROUPS = torch.tensor([0, 1, 2, 0, 4, 5, 6, 7, 8, 1])
TRUNK = TrunkConfig(width=16, layers=2, heads=2, bias_kv=True)
CONFIGS = {
    "depth": EncoderConfig(dim=8, shape=(1, 32, 32), trunk=TRUNK, patch=(16, 16), stride=(16, 16), stem_norm_eps=1e-5, scale=5.0),
    "imu": EncoderConfig(dim=8, shape=(6, 64), trunk=TRUNK, patch=(8,), stride=(8,), stem_norm_eps=1e-5, scale=5.0, head_dropout=0.5),
}


def small_tower(name, train="all", drop=False, run=None, **choices):
    """Weights in float64, where encoders take them as they are: what differs by more than rounding is another algorithm."""
    config = CONFIGS[name]
    if drop:
        config = replace(config, trunk=replace(config.trunk, drop_path=0.5))
    else:
        config = replace(config, head_dropout=0.0)
    encoder = encoder_with(name, config, fresh_weights(name, config, seed=3)).to(
        torch.float32 if run and run.precision == "bf16" else torch.float64
    )
    section = EncoderRecipe(train=train, **choices)
    set_trainable(encoder, section, seed=0)
    return make_tower(name, encoder, section, run or RunRecipe(), CPU)


def make_batch(dtype=torch.float64):
    random = torch.Generator().manual_seed(5)
    inputs = torch.randn(10, 1, 32, 32, generator=random).to(dtype), torch.randn(10, 6, 64, generator=random).to(dtype)
    return Batch(0, tuple(f"sample {i}" for i in range(10)), GROUPS, inputs)


def make_loss(kind="infonce"):
    return PairLoss(PairRecipe(modalities=("depth", "imu"), loss=kind, learn_temperature=True), 1024)


def run_step(micro_batch, batch=None, loss=None, towers=None, step=0):
    towers = towers or (small_tower("depth"), small_tower("imu"))
    loss = loss or make_loss()
    outcome = compute_gradients(towers, loss, batch or make_batch(), 7, step, micro_batch)
    trained = [*towers[0].encoder.named_parameters(), *towers[1].encoder.named_parameters(), *loss.named_parameters()]
    return outcome, [(name, parameter.grad) for name, parameter in trained if parameter.requires_grad]


def assert_equal(ours, plain, size=1.0):
    assert len(ours) == len(plain)
    for (name, mine), (_, theirs) in zip(ours, plain, strict=True):
        assert (mine - theirs).abs().max() <= 1e-6 * size, name


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
@pytest.mark.parametrize("micro_batch", [1, 4, 5])
def test_gradient_cached_is_equal_to_plain(micro_batch, kind):
    plain_outcome, plain = run_step(None, loss=make_loss(kind))
    outcome, ours = run_step(micro_batch, loss=make_loss(kind))
    assert outcome.loss == pytest.approx(plain_outcome.loss, abs=1e-6)
    assert outcome.alignment == pytest.approx(plain_outcome.alignment, abs=1e-6)
    assert_equal(ours, plain)


def test_plain_is_autograd_through_everything():
    """Beside encoders and a loss called by hand."""
    towers, loss, batch = (small_tower("depth"), small_tower("imu")), make_loss(), make_batch()
    rows = [tower.encoder(inputs) for tower, inputs in zip(towers, batch.inputs, strict=True)]
    scores = loss.log_scale.exp() * rows[0] @ rows[1].T
    same = (GROUPS[:, None] == GROUPS) & ~torch.eye(10, dtype=torch.bool)
    ways = [scores.masked_fill(same, -torch.inf).log_softmax(dim=way).diagonal().mean() for way in (0, 1)]
    value = -sum(ways) / 2
    value.backward()
    by_hand = [*towers[0].encoder.named_parameters(), *towers[1].encoder.named_parameters(), *loss.named_parameters()]
    outcome, ours = run_step(3)
    assert outcome.loss == pytest.approx(value.item(), abs=1e-6)
    theirs = [(name, parameter.grad) for name, parameter in by_hand if parameter.requires_grad]
    assert_equal(ours, theirs, size=max(gradient.abs().max() for _, gradient in theirs))  # up to 50, and scores are made in float32


def test_both_passes_of_gradient_caching_drop_the_same():
    """Beside one graph over the same parts with the same seeds."""
    seen = []
    towers = small_tower("depth", drop=True), small_tower("imu", drop=True)
    for tower in towers:
        tower.encoder.register_forward_hook(lambda module, inputs, rows: seen.append(rows.detach().clone()))
    _, ours = run_step(4, towers=towers)
    assert len(seen) == 12
    for side in (0, 3):
        assert all(torch.equal(seen[side + i], seen[6 + side + i]) for i in range(3))
    assert not torch.equal(towers[1].encoder(make_batch().inputs[1]), torch.cat(seen[3:6]))  # there is something to drop

    again = small_tower("depth", drop=True), small_tower("imu", drop=True)
    graphs = []
    for tower, replayed in zip(again, (iter(seen[:3]), iter(seen[3:6])), strict=True):
        rows = torch.cat(list(replayed)).requires_grad_()
        graphs.append((tower, rows))
    loss = make_loss()
    loss(graphs[0][1], graphs[1][1], GROUPS).backward()
    assert_equal(ours[-1:], [("log_scale", loss.log_scale.grad)])


def test_another_step_drops_others():
    _, first = run_step(4, towers=(small_tower("depth", drop=True), small_tower("imu", drop=True)))
    _, again = run_step(4, towers=(small_tower("depth", drop=True), small_tower("imu", drop=True)))
    _, other = run_step(4, towers=(small_tower("depth", drop=True), small_tower("imu", drop=True)), step=1)
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(first, again, strict=True))
    assert not all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(first, other, strict=True))


def test_a_frozen_encoder_runs_once_and_without_a_graph():
    calls = []
    frozen, trained = small_tower("depth", train="none"), small_tower("imu")
    for tower in (frozen, trained):
        tower.encoder.register_forward_hook(lambda module, inputs, rows: calls.append((module.config.shape, rows.requires_grad)))
    run_step(5, towers=(frozen, trained))
    assert calls == [((1, 32, 32), False)] * 2 + [((6, 64), False)] * 2 + [((6, 64), True)] * 2
    assert all(parameter.grad is None for parameter in frozen.encoder.parameters())


def test_anchors_from_a_cache_are_taken_as_they_are():
    towers = small_tower("depth", train="none"), small_tower("imu")
    batch = make_batch()
    vectors = towers[0].encoder(batch.inputs[0]).detach()
    _, live = run_step(4, towers=towers)
    cached = Batch(0, batch.ids, batch.groups, (vectors, batch.inputs[1]), embedded=True)
    again = small_tower("depth", train="none"), small_tower("imu")
    again[0].encoder.register_forward_hook(lambda *_: pytest.fail("the anchor's encoder ran"))
    _, ours = run_step(4, batch=cached, towers=again)
    assert_equal(ours, live)


def test_activation_checkpointing_changes_nothing():
    _, plain = run_step(None, towers=(small_tower("depth", drop=True), small_tower("imu", drop=True)))
    run = RunRecipe(checkpointing=True)
    _, ours = run_step(None, towers=(small_tower("depth", drop=True, run=run), small_tower("imu", drop=True, run=run)))
    assert_equal(ours, plain)


@pytest.mark.parametrize(("capability", "lowest", "highest"), [("AVX512", 0.99, 1 - 1e-8), ("AVX2", 1 - 1e-10, 1)])
def test_bf16_is_near_float32_weights_stay_float32_and_no_cpu_imitates_it(capability, lowest, highest, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    _, plain = run_step(4)
    run = RunRecipe(precision="bf16")
    towers = small_tower("depth", run=run), small_tower("imu", run=run)
    _, ours = run_step(4, batch=make_batch(torch.float32), towers=towers)
    flat = [torch.cat([gradient.flatten() for _, gradient in some]).double() for some in (ours, plain)]
    assert lowest < torch.cosine_similarity(*flat, dim=0) <= highest + 1e-12
    assert {gradient.dtype for _, gradient in ours} == {torch.float32}
    assert len(list(precision_lines(run, CPU))) == (capability == "AVX2")
    assert not list(precision_lines(RunRecipe(), CPU))


@pytest.mark.parametrize("where", [0, 1])
def test_a_loss_that_is_not_finite_names_its_samples(where):
    batch = make_batch()
    batch.inputs[where][6] = torch.nan
    outcome, ours = run_step(4, batch=batch)
    assert outcome.not_finite == ("sample 6",)
    assert all(gradient is None for _, gradient in ours)


@pytest.mark.parametrize(
    ("choices", "trained"),
    [
        ({"train": "head"}, {"head"}),
        ({"train": "last"}, {"head", "trunk.blocks.1"}),
        ({"train": "last", "blocks": 2}, {"head", "trunk.blocks.0", "trunk.blocks.1"}),
        ({"train": "none"}, set()),
        ({"train": "all"}, {"head", "trunk.blocks.0", "trunk.blocks.1", "stem"}),
    ],
)
def test_only_what_is_asked_for_trains(choices, trained):
    tower = small_tower("imu", drop=True, **choices)
    found = {
        ".".join(name.split(".")[: 3 if name.startswith("trunk") else 1])
        for name, own in tower.encoder.named_parameters()
        if own.requires_grad
    }
    assert found == trained
    modes = {
        ".".join(name.split(".")[: 3 if name.startswith("trunk.blocks.") else 1])
        for name, own in tower.encoder.named_modules()
        if name and own.training
    }
    assert modes - {"trunk"} == trained
    tower.eval()
    assert not any(module.training for module in tower.encoder.modules())


def test_adapters_train_alone_and_begin_without_effect():
    plain, adapted = small_tower("imu"), small_tower("imu", train="lora", rank=2, blocks=1, targets=("qkv", "up"))
    inputs = make_batch().inputs[1]
    plain.eval()
    adapted.eval()
    assert torch.equal(plain.call(inputs), adapted.call(inputs))
    names = [name for name, own in adapted.encoder.named_parameters() if own.requires_grad]
    assert {name.split(".lora_")[0] for name in names} == {"trunk.blocks.1.attn.qkv", "trunk.blocks.1.mlp.up"}


def test_adapters_on_the_attention_over_time_alone():
    config = EncoderConfig(
        shape=(3, 2, 16, 16), patch=(8, 8), stride=(8, 8), dim=16, trunk=TrunkConfig(width=16, layers=2, heads=2, frames=2)
    )
    encoder, other = (encoder_with("vision", config, fresh_weights("vision", config, seed=3)) for _ in range(2))
    set_trainable(encoder, EncoderRecipe(train="lora", rank=2, targets=("time.attn.qkv", "time.attn.out")), seed=0)
    adapted = {name.split(".lora_")[0].split(".", 3)[3] for name, own in encoder.named_parameters() if own.requires_grad}
    assert adapted == {"time.attn.qkv", "time.attn.out"}
    with pytest.raises(
        UserError, match="adapters for 'qk': a block has time.attn.qkv, time.attn.out, attn.qkv, attn.out, mlp.up, mlp.down"
    ):
        set_trainable(other, EncoderRecipe(train="lora", targets=("qk",)), seed=0)


def test_rates_and_decay_of_each_parameter():
    towers = {"depth": small_tower("depth", layer_decay=0.5, lr=1e-2), "imu": small_tower("imu", weight_decay=0.5)}
    encoders = {name: tower.encoder for name, tower in towers.items()}
    loss = make_loss()
    settings = OptimizerRecipe(lr=1e-3, weight_decay=0.2)
    made = optimizer.make_optimizer(encoders, {name: tower.recipe for name, tower in towers.items()}, nn.ModuleList([loss]), settings)
    names = {own: f"{name}.{key}" for name, encoder in encoders.items() for key, own in encoder.named_parameters()} | {
        loss.log_scale: "scale"
    }
    found = {names[own]: (group["peak"], group["weight_decay"]) for group in made.param_groups for own in group["params"]}
    assert len(found) == len([own for own in names if own.requires_grad])
    assert found["depth.head.proj.weight"] == (1e-2, 0.2)
    assert found["depth.head.norm.weight"] == (1e-2, 0.0)
    assert found["depth.trunk.blocks.1.mlp.up.weight"] == (5e-3, 0.2)
    assert found["depth.trunk.blocks.0.attn.qkv.weight"] == (2.5e-3, 0.2)
    assert found["depth.trunk.blocks.0.attn.qkv.bias"] == (2.5e-3, 0.0)
    assert found["depth.trunk.blocks.0.attn.bias_k"] == (2.5e-3, 0.0)
    assert found["depth.stem.proj.weight"] == (1.25e-3, 0.2)
    assert found["depth.stem.pos"] == found["depth.stem.cls"] == found["depth.stem.norm.weight"] == (1.25e-3, 0.0)
    assert found["imu.stem.proj.weight"] == (1e-3, 0.5)
    assert found["scale"] == (1e-3, 0.0)


def test_muon_steps_the_matrices_of_the_blocks_orthogonally_and_adamw_the_rest():
    tower = small_tower("imu")
    trained = {name: own for name, own in tower.encoder.named_parameters() if own.requires_grad}
    before = {name: own.detach().clone() for name, own in trained.items()}
    settings = OptimizerRecipe(name="muon", lr=1e-2, weight_decay=0.0)
    made = optimizer.make_optimizer({"imu": tower.encoder}, {"imu": tower.recipe}, nn.ModuleList([]), settings)
    optimizer.set_rate(made, 1.0)
    random = torch.Generator().manual_seed(1)
    for own in trained.values():
        own.grad = torch.randn(own.shape, generator=random, dtype=own.dtype)
    made.step()
    for name, own in trained.items():
        change = own.detach() - before[name]
        matrix = name.startswith("trunk.blocks.") and own.ndim == 2
        assert set(made.state[own]) == ({"momentum_buffer"} if matrix else {"exp_avg", "exp_avg_sq", "step"})
        if matrix:  # all singular values alike, and as large altogether as a step of AdamW, 0.2 of the rate an entry
            values = torch.linalg.svdvals(change)
            assert values.max() / values.min() < 2.5, name
            assert change.square().mean().sqrt().item() == pytest.approx(0.2 * 1e-2, rel=0.3), name
        else:
            torch.testing.assert_close(change.abs(), torch.full_like(change, 1e-2), rtol=1e-3, atol=0)
    made.zero_grad()
    assert all(own.grad is None for own in trained.values())


@pytest.mark.parametrize(("capability", "lowest", "highest"), [("AVX512", 1e-3, 0.1), ("AVX2", 0, 1e-5)])
def test_muon_does_not_imitate_bfloat16(capability, lowest, highest, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    tower = small_tower("imu", run=RunRecipe(precision="bf16"))  # weights in float32
    made = optimizer.make_optimizer(
        {"imu": tower.encoder}, {"imu": tower.recipe}, nn.ModuleList([]), OptimizerRecipe(name="muon", lr=1e-2, weight_decay=0.0)
    )
    optimizer.set_rate(made, 1.0)
    for own in tower.encoder.parameters():
        own.grad = torch.zeros_like(own)
    matrix = tower.encoder.trunk.blocks[0].attn.qkv.weight
    before = matrix.detach().clone()
    matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1))
    given = matrix.grad.clone()
    made.step()
    a, b, c = next(group["ns_coefficients"] for group in made.param_groups if "ns_coefficients" in group)
    expected = given.double().T / given.double().norm()  # rows are more than columns
    for _ in range(5):
        gram = expected @ expected.T
        expected = a * expected + (b * gram + c * gram @ gram) @ expected
    change = (before - matrix.detach()).double()
    expected = expected.T * change.norm() / expected.norm()
    assert lowest <= (change - expected).norm() / change.norm() < highest
    assert torch.equal(matrix.grad, given)


def test_warm_up_and_cosine():
    rates = [optimizer.rate_at(step, 100, 10, OptimizerRecipe()) for step in range(100)]
    assert rates[0] == 0.1
    assert rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001
    assert optimizer.rate_at(55, 100, 10, OptimizerRecipe(final=0.2)) == pytest.approx(0.6)
    assert optimizer.rate_at(99, 100, 10, OptimizerRecipe(schedule="constant")) == 1.0


def test_gradients_are_clipped_together():
    groups = [[nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))], [nn.Parameter(torch.zeros(()))], [nn.Parameter(torch.zeros(3))]]
    groups[0][0].grad, groups[0][1].grad, groups[1][0].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0]), torch.tensor(12.0)
    assert optimizer.clip_gradients(groups, 100.0) == pytest.approx(13.0)
    assert groups[1][0].grad == 12
    assert optimizer.clip_gradients(groups, 1.0) == pytest.approx(13.0)
    assert groups[1][0].grad.item() == pytest.approx(12 / 13, rel=1e-5)
    assert groups[0][0].grad[0].item() == pytest.approx(3 / 13, rel=1e-5)
    groups[0][1].grad = torch.tensor([torch.nan])
    assert not torch.tensor(optimizer.clip_gradients(groups, 1.0)).isfinite()
