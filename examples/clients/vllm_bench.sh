#!/bin/sh
# vLLM's own serving benchmark, with its speculative decoding metrics.
#
# pip install vllm
# AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat AURORA_TOKENIZER=/models/target ./vllm_bench.sh
set -eu
vllm bench serve \
    --backend openai-chat --endpoint /v1/chat/completions \
    --base-url "${AURORA_BASE_URL%/v1}" \
    --model "$AURORA_MODEL" --tokenizer "$AURORA_TOKENIZER" \
    --dataset-name random --random-input-len 32 --random-output-len 16 \
    --num-prompts 8 --max-concurrency 2
echo passed
