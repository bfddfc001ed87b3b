"""A user, a chat, memory and a search, on whatever store the environment names.

python quickstart.py
DATA_STORAGE_TYPE=sqlite python quickstart.py
"""

import asyncio

from dal import create_data_access


async def main() -> None:
    async with create_data_access() as dal:
        ada = await dal.users.create(name="Ada", email="ada@example.com")
        chat = await dal.chats.create(f"engines-{ada.id}", user_id=ada.id, title="Engines")
        await dal.messages.add(chat.chat_id, "user", "What is a difference engine?")
        async with dal.transaction() as tx:  # both or neither
            await tx.messages.add(chat.chat_id, "assistant", "A mechanical calculator, designed by Babbage.")
            await tx.memory.set(ada.id, "preferences", "tone", "brief")

        for message in await dal.messages.history(chat.chat_id):
            print(message.sequence_number, message.role, message.content)
        for hit in (await dal.messages.search("babbage calculator", chat_id=chat.chat_id)).items:
            print("found", hit.message.sequence_number, hit.snippet)
        print("tone:", await dal.memory.get(ada.id, "preferences", "tone"))


if __name__ == "__main__":
    asyncio.run(main())
