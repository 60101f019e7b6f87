#!/bin/sh
# GuideLLM: a synthetic load at a constant number of streams.
#
# pip install guidellm
# AURORA_BASE_URL=http://127.0.0.1:8000/v1 AURORA_MODEL=chat AURORA_TOKENIZER=/models/target ./guidellm.sh
set -eu
guidellm run \
    --backend "kind=openai_http,target=${AURORA_BASE_URL%/v1},model=$AURORA_MODEL" \
    --tokenizer "kind=hf_auto,model=$AURORA_TOKENIZER" \
    --profile kind=concurrent,streams=2 --constraint kind=max_requests,count=8 \
    --data kind=synthetic_text,prompt_tokens=32,output_tokens=16 \
    --output kind=console --disable-console-interactive
echo passed
