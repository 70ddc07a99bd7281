import { NativeModules } from 'react-native';

/** A class: its place among the network's, its score, and its probability after softmax. */
export interface Score {
  index: number;
  score: number;
  probability: number;
}

interface Native {
  classify(uri: string, wanted: number): Promise<Score[]>;
}

function native(): Native {
  const found = NativeModules.MyNet as Native | undefined;
  if (found === undefined) {
    throw new Error('The native part of react-native-mynet is missing: it is for Android alone, and the app must be built again.');
  }
  return found;
}

/**
 * The likeliest classes of a picture.
 *
 * @param uri of a picture on the device, such as an image picker's `content://…` or a camera's `file://…`
 * @param wanted how many
 */
export async function classify(uri: string, wanted = 5): Promise<Score[]> {
  return native().classify(uri, wanted);
}
