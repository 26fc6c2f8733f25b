"""Tiny random vision-language models with their processors, and conversations about pictures of two colours."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AddedToken

from tests.support.chat_templates import chat_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for c in m.content %}{% if c.type == 'image' %}"
    "{{ 'IMAGE' }}{% else %}{{ c.text }}{% endif %}{% endfor %}{{ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML over contents that are lists of pieces, as the templates of vision-language models are."""

LLAVA_TEMPLATE = (
    "{% for m in messages %}{{ m.role.upper() + ': ' }}{% for c in m.content if c.type == 'image' %}{{ 'IMAGE\n' }}"
    "{% endfor %}{% for c in m.content if c.type == 'text' %}{% if m.role == 'assistant' %}{% generation %}"
    "{{ c.text + ' ' }}{% endgeneration %}{% else %}{{ c.text + ' ' }}{% endif %}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""Pictures first, and marks of what the assistant says: LLaVA 1.5's."""

SIDE, HIDDEN = 16, 16
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
VISION = {
    "hidden_size": HIDDEN,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
FAMILIES = ("llava", "idefics3", "gemma3", "qwen2_vl")


def save_vision_model(family: str, folder: Path) -> nn.Module:
    """Save a tiny model of a family with its processor; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    processor = {"llava": _llava, "idefics3": _idefics3, "gemma3": _gemma3, "qwen2_vl": _qwen2_vl}[family](folder)
    tokenizer = processor.tokenizer
    settings = _SETTINGS[family](tokenizer)
    torch.manual_seed(0)
    model: Any = transformers.AutoModelForImageTextToText.from_config(settings).float().eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    return model


def load_processor(folder: Path) -> Any:
    """The processor of a folder, as transformers loads it without torchvision."""
    from gindex.model.processor_classes import processor_class, without_videos

    return without_videos(processor_class(folder)).from_pretrained(str(folder))


def _tokenizer(placeholder: str, *tokens: str, template: str = TEMPLATE) -> Any:
    tokenizer = chat_tokenizer(template.replace("IMAGE", placeholder))
    added = [AddedToken(token, special=True, normalized=False) for token in (placeholder, *tokens)]
    tokenizer.add_tokens(added, special_tokens=True)
    tokenizer.pad_token = "</s>"
    return tokenizer


def _llava(folder: Path) -> Any:
    size = {"height": SIDE, "width": SIDE}
    tokenizer = _tokenizer("<image>", template=LLAVA_TEMPLATE)
    processor = transformers.LlavaProcessor(
        image_processor=transformers.CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    )
    processor.save_pretrained(folder)
    return processor


def _idefics3(folder: Path) -> Any:
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    tokenizer = _tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles)
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessorPil(
            size={"longest_edge": 2 * SIDE}, max_image_size={"longest_edge": SIDE}
        ),
        tokenizer=tokenizer,
        image_seq_len=1,
        chat_template=tokenizer.chat_template,
    )
    processor.save_pretrained(folder)
    return processor


def _gemma3(folder: Path) -> Any:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = _tokenizer("<start_of_image>", "<image_soft_token>", "<end_of_image>")
    tokenizer.init_kwargs |= named
    tokenizer._set_model_specific_special_tokens(named)
    processor = transformers.Gemma3Processor(
        image_processor=transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=tokenizer.chat_template,
    )
    processor.save_pretrained(folder)
    return processor


def _qwen2_vl(folder: Path) -> Any:
    tokenizer = _tokenizer(
        "<|image_pad|>",
        "<|video_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
        template=TEMPLATE.replace("IMAGE", "<|vision_start|>IMAGE<|vision_end|>"),
    )
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, temporal_patch_size=1, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024}
    )
    images.save_pretrained(folder)
    settings = folder / "preprocessor_config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "processor_class": "Qwen2VLProcessor"}))
    tokenizer.save_pretrained(folder)
    return load_processor(folder)


def _ids(tokenizer: Any, *tokens: str) -> list[int]:
    return [tokenizer.convert_tokens_to_ids(token) for token in tokens]


def _llava_settings(tokenizer: Any) -> Any:
    return transformers.LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **TEXT},
        vision_config={"model_type": "clip_vision_model", "projection_dim": HIDDEN, **VISION},
        image_token_index=_ids(tokenizer, "<image>")[0],
        vision_feature_layer=-2,
        image_seq_length=4,
    )


def _idefics3_settings(tokenizer: Any) -> Any:
    return transformers.Idefics3Config(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0, **TEXT},
        vision_config={"model_type": "idefics3_vision", **VISION},
        image_token_id=_ids(tokenizer, "<image>")[0],
        scale_factor=2,
        pad_token_id=0,
    )


def _gemma3_settings(tokenizer: Any) -> Any:
    image, begin, end = _ids(tokenizer, "<image_soft_token>", "<start_of_image>", "<end_of_image>")
    return transformers.Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer),
            "head_dim": 8,
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 8,
            **TEXT,
        },
        vision_config={"model_type": "siglip_vision_model", **VISION},
        mm_tokens_per_image=4,
        image_token_index=image,
        boi_token_index=begin,
        eoi_token_index=end,
    )


def _qwen2_vl_settings(tokenizer: Any) -> Any:
    names = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    image, video, begin, end = _ids(tokenizer, *names)
    return transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
            **TEXT,
        },
        vision_config={
            "depth": 2,
            "embed_dim": HIDDEN,
            "hidden_size": HIDDEN,
            "num_heads": 2,
            "mlp_ratio": 2,
            "patch_size": 4,
            "temporal_patch_size": 1,
            "spatial_merge_size": 2,
        },
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=begin,
        vision_end_token_id=end,
    )


_SETTINGS = {
    "llava": _llava_settings,
    "idefics3": _idefics3_settings,
    "gemma3": _gemma3_settings,
    "qwen2_vl": _qwen2_vl_settings,
}


def about(colour: str, question: str = "What colour?", **picture: Any) -> list[dict[str, Any]]:
    """A conversation about a picture: its colour is the answer."""
    asked = [{"type": "image", **picture}, {"type": "text", "text": question}]
    said = [{"type": "text", "text": colour}]
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
