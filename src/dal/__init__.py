"""dal: users, chats, messages, memory, files and audit logs on any store."""
