"""openai for Python: two turns of a conversation, streamed and whole, and an error.

pip install openai
AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat python openai_client.py
"""

import os

import openai

model = os.environ["AURORA_MODEL"]
client = openai.OpenAI(base_url=os.environ["AURORA_BASE_URL"], api_key="unused")

assert model in {each.id for each in client.models.list()}

messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
for question in ("And then?", "Why?"):
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=16)
    # Whatever the server says, it takes back.
    messages.append(answer.choices[0].message)
    messages.append({"role": "user", "content": question})

stream = client.chat.completions.create(
    model=model,
    messages=messages,
    max_tokens=16,
    stream=True,
    stream_options={"include_usage": True},
    reasoning_effort="low",
)
chunks = list(stream)
assert chunks[-1].usage.completion_tokens <= 16

whole = client.completions.create(model=model, prompt="hello", max_tokens=8, seed=7)
assert whole.usage.completion_tokens <= 8

try:
    client.completions.create(model=model, prompt="hello", n=2)
except openai.BadRequestError as error:
    if error.param != "n":
        raise
print("passed")
