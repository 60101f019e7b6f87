"""LiteLLM, which other tools call models through: two turns of a conversation, and a stream.

pip install litellm
AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat python litellm_client.py
"""

import os

import litellm

served = {
    "model": f"openai/{os.environ['AURORA_MODEL']}",
    "api_base": os.environ["AURORA_BASE_URL"],
    "api_key": "unused",
}

messages = [{"role": "user", "content": "Hello"}]
for question in ("And then?", "Why?"):
    answer = litellm.completion(messages=messages, max_tokens=16, **served)
    messages.append(answer.choices[0].message.model_dump())
    messages.append({"role": "user", "content": question})

stream = litellm.completion(messages=messages, max_tokens=16, stream=True, **served)
assert list(stream)
print("passed")
