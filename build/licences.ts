export const licences = async (_o: { services: boolean }) => "to be made\n";
