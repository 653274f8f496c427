def convert(source, target, options):
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    m = convert_float_to_float16(
        onnx.load(source), keep_io_types=options["keep_io"], op_block_list=options["keep_ops"] or None
    )
    onnx.save(m, target)
    return {}
