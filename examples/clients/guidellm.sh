#!/bin/sh
# GuideLLM: a synthetic load at a constant number of streams.
#
# pip install guidellm
# AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat AURORA_TOKENIZER=/models/target ./guidellm.sh
set -eu
guidellm benchmark run \
    --target "${AURORA_BASE_URL%/v1}" \
    --model "$AURORA_MODEL" \
    --processor "$AURORA_TOKENIZER" \
    --profile concurrent --rate 2 --max-requests 8 \
    --data prompt_tokens=32,output_tokens=16
echo passed
