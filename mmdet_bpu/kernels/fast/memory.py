"""Tensors as seen by compiled loops: flat arrays at an address."""
from numba import carray, njit, types
from numba.extending import intrinsic


def _pointer_to(element: types.Type):
    """An intrinsic that turns an address (int64) into a pointer to ``element``."""

    @intrinsic
    def pointer(typing_context, address):
        def generate(context, builder, signature, arguments):
            return builder.inttoptr(arguments[0],
                                    context.get_value_type(signature.return_type))

        return types.CPointer(element)(types.int64), generate

    return pointer


def _array_of(element: types.Type):
    """A function that views ``size`` elements from an address on as an array."""
    pointer = _pointer_to(element)

    @njit
    def array(address, size):
        return carray(pointer(address), (size, ))

    return array


int8_at = _array_of(types.int8)
int16_at = _array_of(types.int16)
int32_at = _array_of(types.int32)
uint8_at = _array_of(types.uint8)
