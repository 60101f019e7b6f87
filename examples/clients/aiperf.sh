#!/bin/sh
# NVIDIA AIPerf: chat requests with synthetic prompts, streamed.
#
# pip install aiperf
# AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat AURORA_TOKENIZER=/models/target ./aiperf.sh
set -eu
aiperf profile \
    --url "${AURORA_BASE_URL%/v1}" \
    --model "$AURORA_MODEL" \
    --tokenizer "$AURORA_TOKENIZER" \
    --endpoint-type chat --streaming \
    --concurrency 2 --request-count 8 \
    --isl 32 --osl 16 --ui none
echo passed
