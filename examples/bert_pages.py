"""Tickets of a small BERT under Hugging Face's `Trainer`: from which page of tombola's documentation is a line?

python examples/bert_pages.py docs results/bert
"""

import sys
from collections import Counter
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import tombola
from tombola.integrations.transformers import TombolaCallback

PAGES, WORDS, LENGTH = ("studies", "statistics", "api", "performance", "own-models"), 1500, 24


def make_model():
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return BertForSequenceClassification(BertConfig(vocab_size=WORDS, num_labels=len(PAGES), **sizes))


def examples(folder):
    """Return the lines of the pages as token ids, each with the number of its page, in a fixed random order."""
    texts = [(Path(folder) / f"{page}.md").read_text("utf-8").splitlines() for page in PAGES]
    lines = [(line.lower().split(), page) for page, text in enumerate(texts) for line in text]
    lines = [(words[:LENGTH], page) for words, page in lines if len(words) > 5]
    common = Counter(word for words, _ in lines for word in words).most_common(WORDS - 2)
    ids = {word: number for number, (word, _) in enumerate(common, 2)}  # 0 fills up, 1 is any other word
    rows = []
    for words, page in lines:
        tokens = torch.tensor([ids.get(word, 1) for word in words] + [0] * (LENGTH - len(words)))
        rows.append({"input_ids": tokens, "attention_mask": (tokens > 0).long(), "labels": page})
    return [rows[place] for place in torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def accuracy(found):
    return {"accuracy": (found.predictions.argmax(1) == found.label_ids).mean()}


def main(folder, out, rounds=2, trials=10, steps=200):
    """Train all runs; return their results."""
    rows = examples(folder)
    test, train = rows[: len(rows) // 4], rows[len(rows) // 4 :]
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "use_cpu": True, "logging_strategy": "no"}
    sizes = {"per_device_train_batch_size": 32, "per_device_eval_batch_size": 200, "max_steps": steps}
    for run in tombola.rounds(make_model, out=out, rounds=rounds, rate=0.6, trials=trials, figures=False):
        arguments = TrainingArguments(f"{run.checkpoint_dir}", learning_rate=1e-3, seed=run.seed, **sizes, **quiet)
        callback = TombolaCallback(run, {"eval_accuracy": "accuracy"})
        data = {"train_dataset": train, "eval_dataset": test, "compute_metrics": accuracy}
        trainer = Trainer(run.model, arguments, callbacks=[callback], **data)
        trainer.train()
        trainer.evaluate()
    return tombola.Results.open(out)


if __name__ == "__main__":
    print(main(*sys.argv[1:]).frame().groupby(["arm", "level"])[["density", "final_test_accuracy"]].mean().to_string())
