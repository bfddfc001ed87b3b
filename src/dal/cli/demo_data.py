"""Made-up old chat data for `dal demo`: a few people, several languages, and the oddities that real exports have.

The same data every time. Times without a zone, missing times and one record that no store can keep are on purpose.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count, islice
from pathlib import Path
from typing import Final

from dal.ops import JsonValue

# user, language, title, turns: the user speaks first, then they alternate.
_TALKS: Final[tuple[tuple[str, str, str, tuple[str, ...]], ...]] = (
    (
        "ada",
        "en",
        "The difference engine",
        (
            "What is a difference engine?",
            "A mechanical calculator that tabulates polynomials by repeated addition.",
            "Could it have worked?",
            "Yes: one was built from the drawings in 1991, and it calculates to 31 digits.",
        ),
    ),
    (
        "ada",
        "en",
        "Renaming a function",
        (
            "How do I rename get_user_by_id everywhere? It is in repo-map.py too.",
            "Try this:\n\n    git grep -l get_user_by_id | xargs sed -i s/get_user_by_id/find_user/g\n",
            "Works, thanks! 🎉",
        ),
    ),
    (
        "yuki",
        "ja",
        "週末の予定",
        (
            "週末に京都へ行こうと思います。おすすめはありますか？",
            "いいですね！朝早くの伏見稲荷は人が少なくて気持ちがいいですよ。",
            "鶏肉のおいしいお店も知りたいです。",
            "木屋町の焼き鳥はいかがでしょう。予約をおすすめします。🍢",
        ),
    ),
    (
        "yuki",
        "ja",
        "データベースの質問",
        (
            "PostgreSQLの索引が遅いときは何を見ればいいですか？",
            "まず EXPLAIN (ANALYZE, BUFFERS) を見てください。使われていない索引は書き込みを遅くします。",
        ),
    ),
    (
        "mei",
        "zh",
        "晚饭",
        (
            "今天晚饭吃什么好？",
            "天气冷，来一锅热乎乎的鱼汤怎么样？",
            "好主意，需要买什么？",
            "鲫鱼、豆腐、姜和葱。",
        ),
    ),
    (
        "omar",
        "ar",
        "رحلة",
        (
            "كم تستغرق الرحلة من القاهرة إلى أسوان بالقطار؟",
            "حوالي ثلاث عشرة ساعة، والمنظر على النيل جميل.",
        ),
    ),
    (
        "zoe",
        "fr",
        "Café",
        (
            "Où trouver un bon café près du canal ?",
            "Au coin de la rue, chez Léa : son café crème est excellent. ☕",
            "Merci !",
        ),
    ),
)
_START: Final = datetime(2024, 3, 1, 9, 0)  # old data knows no zone


def write_demo_data(directory: Path, chats: int) -> tuple[Path, Path]:
    """Writes so many conversations, and the user memory, into the directory, and says where."""
    conversations, memory = directory / "conversations.jsonl.gz", directory / "memory.jsonl"
    with gzip.open(conversations, "wt", encoding="utf-8", newline="\n") as file:
        for record in islice(_conversations(), chats):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        # An escaped U+0000: some stores cut the text there, others refuse it, so the import names it and goes on.
        file.write('{"chat_id": "broken-1", "user": "zoe", "messages": [{"role": "user", "content": "\\u0000"}]}\n')
    with memory.open("w", encoding="utf-8", newline="\n") as lines:
        for persona in _memory():
            lines.write(json.dumps(persona, ensure_ascii=False) + "\n")
    return conversations, memory


def _conversations() -> Iterator[dict[str, JsonValue]]:
    for turn in count():
        for number, (user, language, title, texts) in enumerate(_TALKS):
            began = _START + timedelta(hours=turn * 31 + number * 5, minutes=17 * number)
            messages: list[JsonValue] = []
            for index, text in enumerate(texts):
                at = (began + timedelta(seconds=41 * index)).isoformat()
                messages.append(
                    {
                        "role": "assistant" if index % 2 else "user",
                        "content": text,
                        "at": None if index == 2 else at,
                        "metadata": {"model": "demo-1"} if index % 2 else {},
                    }
                )
            yield {
                "chat_id": f"demo-{turn + 1}-{user}-{number}",
                "user": user,
                "source": "dal demo",
                "title": title if turn == 0 else f"{title} ({turn + 1})",
                "started_at": began.isoformat(),
                "metadata": {"language": language},
                "messages": messages,
            }


def _memory() -> Iterator[dict[str, JsonValue]]:
    yield {
        "user": "ada",
        "source": "dal demo",
        "facts": ["Likes mechanical calculators.", "Prefers short answers."],
        "preferences": {"tone": "brief", "code_style": {"language": "python", "line_length": 120}},
    }
    yield {"user": "yuki", "source": "dal demo", "facts": ["京都が好き。", "朝型。"], "preferences": {"tone": "丁寧"}}
