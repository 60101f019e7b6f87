"""LangChain: two turns of a conversation, and a stream.

pip install langchain-openai
AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat python langchain_client.py
"""

import os

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(
    model=os.environ["AURORA_MODEL"],
    base_url=os.environ["AURORA_BASE_URL"],
    api_key="unused",
    max_tokens=16,
)
messages = [("user", "Hello")]
for question in ("And then?", "Why?"):
    messages += [chat.invoke(messages), ("user", question)]
assert list(chat.stream(messages))
print("passed")
