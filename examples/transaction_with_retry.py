"""Ten callers move points between two users; each transaction is run again when somebody else was faster."""

import asyncio

from dal import DataAccess, Transaction, create_data_access


async def move(dal: DataAccess, payer: str, receiver: str, points: int) -> None:
    """Takes points from one user's memory and gives them to another's: both or neither."""

    async def both(tx: Transaction) -> None:  # reads first, then writes; may run several times
        for user, change in ((payer, -points), (receiver, points)):
            balance = await tx.memory.get(user, "account", "points")
            assert isinstance(balance, int)
            if balance + change < 0:
                raise ValueError("not enough points")  # leaves the block: nothing is written
            await tx.memory.set(user, "account", "points", balance + change)

    await dal.run_in_transaction(both, attempts=20)


async def main() -> None:
    async with create_data_access() as dal:
        ada, bob = await dal.users.create(name="Ada"), await dal.users.create(name="Bob")
        for user in (ada, bob):
            await dal.memory.set(user.id, "account", "points", 100)

        moves = [move(dal, ada.id, bob.id, 15) for _ in range(10)]  # 150 points wanted, 100 there
        refused = [error for error in await asyncio.gather(*moves, return_exceptions=True) if error is not None]

        for user in (ada, bob):
            print(user.name, await dal.memory.get(user.id, "account", "points"))
        print("refused:", len(refused), "not enough points" if all(map(is_refusal, refused)) else refused)


def is_refusal(error: BaseException) -> bool:
    return isinstance(error, ValueError)


if __name__ == "__main__":
    asyncio.run(main())
