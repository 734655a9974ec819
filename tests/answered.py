"""Answers of a model in this process to the demo's questions."""

from __future__ import annotations

from lostattn.serving.evaluation.rate import Rate
from lostattn.serving.evaluation.store import Replies
from lostattn.surgery.chat import Chat
from lostattn.surgery.evaluation.local import Encoded, answer_locally
from lostattn.surgery.evaluation.tasks import read_tasks


def digit_answers(chat: Chat, count: int, seed: int = 0) -> list[str]:
    """What the chat's model says to the first questions of a seed, in two tokens at most, asked in batches."""
    (asked,) = read_tasks(["digits"], limit=count, max_tokens=4, seed=seed)
    replies = Replies(asked.items)
    answer_locally(chat, Encoded(chat.processor, asked.items), replies, asked.max_tokens, 32, Rate("", count, 0))
    return [reply.text for reply in replies.replies]
